write_page=None
