"""What a store can be: a folder on this disk, or a bucket."""
