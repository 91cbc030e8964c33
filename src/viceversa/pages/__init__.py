"""What is written as HTML: the report of a run, the look at two folders."""
