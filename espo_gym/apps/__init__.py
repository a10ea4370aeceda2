"""What knows the algorithms by name: the command line and the runs it makes."""
