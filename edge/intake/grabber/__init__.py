"""A frame grabber: pictures of a machine that has no DICOM, taken from its monitor output."""
