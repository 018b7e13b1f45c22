"""The peers, one module each: `contestants(model, threads)`, or NotInstalled where the package is not there."""
