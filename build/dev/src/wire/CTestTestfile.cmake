# CMake generated Testfile for 
# Source directory: /work/main/src/wire
# Build directory: /work/main/build/dev/src/wire
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
