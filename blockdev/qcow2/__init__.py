"""qcow2 images: the format as data, its tables and their order on disk, and the node that serves an image.

Left out: encrypted images (refused by name), taking internal snapshots and tracking dirty bitmaps. An image's own
snapshots, bitmaps and unknown extensions are kept. The image file is not trusted: every field of it is checked.
"""
