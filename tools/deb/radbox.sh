#!/bin/sh
# radbox: the command line of the installed box, on its own board file unless another is named.
# Files that root makes in the data folder must stay open to the services' group (the folder is set-group-id).
umask 0007
export RADBOX_BOARD="${RADBOX_BOARD:-/etc/radbox/board.toml}"
exec /opt/radbox/bin/radbox "$@"
