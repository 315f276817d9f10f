"""One module a noun; each has an `app`."""
