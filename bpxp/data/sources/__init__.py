"""Where data sets come from: files in known formats, folders of images, downloads."""
