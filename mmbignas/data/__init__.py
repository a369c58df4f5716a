"""Loaders, images that are kept, and image sizes."""
from mmbignas.data.image_sizes import check_image_size, is_one_size, network_stride, read_image_sizes, read_size_list

__all__ = ['check_image_size', 'is_one_size', 'network_stride', 'read_image_sizes', 'read_size_list']
