"""The bench of cr3: the command line, and what it shows. Scripts start with `lab.session.Session`."""
