"""What `snnpipe export` can write, one file each."""
