"""Issues: what is wrong that a person can do something about. `docs/issues.md` has the table.

seen       everything the checks look at, frozen        habits    how often each machine sends
checks     the table of checks, and `find`              fixes     what care does when a person asks for it
desk       the step that care takes                     notes     what outlives a restart of care
"""

from __future__ import annotations
