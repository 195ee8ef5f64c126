# CMake generated Testfile for 
# Source directory: /work/main/src/jail
# Build directory: /work/main/build/dev/src/jail
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
