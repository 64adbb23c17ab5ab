"""Methods compared on one dataset: runs over seeds, and the significance of their differences."""
