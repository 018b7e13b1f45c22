"""Signed model updates on a USB stick: read it, stage it, try it, take it, and say so. `docs/updates.md` is the map.

command, mount   how it is started          stick     what may be opened on it
install          the steps, in order        stage     bytes into a slot
selftest         does it run here           shadow    what would it change here
receipt          signed word to the maker   refusals  each code's plain sentence
"""

from __future__ import annotations
