"""What reports and the look at two folders are made of: pages, curves, findings, advice."""
