# CMake generated Testfile for 
# Source directory: /work/main/src/os
# Build directory: /work/main/build/dev/src/os
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
add_test([=[os_test]=] "/work/main/build/dev/tests/os_test")
set_tests_properties([=[os_test]=] PROPERTIES  LABELS "unit" SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/work/main/cmake/caisson.cmake;95;add_test;/work/main/src/os/CMakeLists.txt;2;caisson_test;/work/main/src/os/CMakeLists.txt;0;")
