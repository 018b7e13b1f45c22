"""Tools of the people who build, sign and look after boxes; never installed on one."""
