"""Import and export of other projects' files, one format a file; they know robot_rl, numpy, zarr and h5py only."""
