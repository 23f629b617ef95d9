"""Reading and writing media: video and sound through PyAV, with exact time stamps and stable bytes."""
