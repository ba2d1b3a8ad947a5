# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# The series of Linux that the driver is written for. Where one is to be chosen, it is the first.
ALL_SERIES=(7.3 7.2)
