"""Reading what users download: annotation files in their genuine formats, and images beside or inside them."""
