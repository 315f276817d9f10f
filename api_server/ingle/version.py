"""The version of the package. Installed metadata has it too, and takes as long to read as a short command may take."""

VERSION = "0.1.0"
