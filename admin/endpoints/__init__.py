"""The endpoints of the admin API, one noun a file. Each file ends with the list of its handlers."""
