"""Methods side by side on one data set: runs over seeds, and what their differences are worth."""
