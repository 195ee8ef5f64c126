# CMake generated Testfile for 
# Source directory: /work/main
# Build directory: /work/main/build/dev
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
subdirs("src/base")
subdirs("src/os")
subdirs("src/jail")
subdirs("src/wire")
subdirs("src/store")
subdirs("src/image")
subdirs("src/vmm")
subdirs("src/box")
subdirs("src/cli")
subdirs("src/agent")
subdirs("examples")
subdirs("tests")
subdirs("fuzz")
