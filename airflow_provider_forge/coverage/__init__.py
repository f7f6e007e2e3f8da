"""Coverage: the status of each window, with alerts and healing for those that are missing."""
