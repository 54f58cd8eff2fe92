"""A judge behind an endpoint rates answers: what it is asked, how its replies are read, and the stage that does it."""
