#!/bin/sh
# Options alone are options of the server.
set -eu
case ${1-} in
  '' | -*) set -- redis-server "$@" ;;
esac
exec "$@"
