"""Files: pictures, clips, and tables of pairs."""
