"""tools/bench pipeline: an image file to a report in one process, ours and the same steps from ordinary parts."""
