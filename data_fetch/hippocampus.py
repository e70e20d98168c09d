def pack(members, dataset):
    raise NotImplementedError
