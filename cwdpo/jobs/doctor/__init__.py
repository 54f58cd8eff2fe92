"""`cwdpo doctor`: small checks of what a grid will need, one file per thing that is looked at."""
