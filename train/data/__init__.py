"""Readers of data sets, one file each; numpy, and h5py where the files are HDF5."""
