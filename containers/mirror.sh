#!/bin/bash
# Prints the mirror of Debian that this machine's apt uses; Debian's own if that is no address for other programs.
set -uo pipefail
# shellcheck disable=SC2016 # apt-get's own variables
! command -v apt-get >/dev/null || mirror=$(apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)' 2>/dev/null |
  awk -F'|' '$1 == "Debian" && $2 ~ "^https?://" && $2 !~ /security/ {print $2; exit}')
echo "${mirror:-https://deb.debian.org/debian}"
