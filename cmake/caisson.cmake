# The one place where language level, warnings, hardening and test registration are decided.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# A build tree is laid out as an installation is, see cmake/install.cmake: programs and library find each other in the
# same way in both.
set(CMAKE_INSTALL_LIBDIR lib CACHE PATH "Libraries, below the prefix")
include(GNUInstallDirs)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/${CMAKE_INSTALL_LIBDIR})
# Programs that only caisson starts; found by the others as ../libexec/caisson beside bin/.
set(CAISSON_LIBEXEC_DIRECTORY ${CMAKE_BINARY_DIR}/libexec/caisson)
# All builds of one source tree share the assets that tools/setup makes for an ordinary user.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/lib/caisson)
file(CREATE_LINK ../../../assets ${CMAKE_BINARY_DIR}/lib/caisson/assets SYMBOLIC)

# Size and start time matter more here than the last percent of a loop; -O3 and LTO doubled the build for nothing.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CAISSON_CCACHE ccache)
if(CAISSON_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CAISSON_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CAISSON_CCACHE})
endif()

find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_library(CAISSON_NETTLE libnettle.a REQUIRED)

set(CAISSON_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual
    -Wno-missing-field-initializers)  # designated initialisers leave the rest at their defaults on purpose
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND CAISSON_WARNINGS -Wno-restrict)  # false alarms in std::string, GCC bug 105651
endif()
if(CAISSON_WERROR)
  list(APPEND CAISSON_WARNINGS -Werror)
endif()

set(CAISSON_HARDENING -fstack-protector-strong -fstack-clash-protection -fcf-protection)

function(caisson_flags target)
  target_compile_options(${target} PRIVATE ${CAISSON_WARNINGS} ${CAISSON_HARDENING})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE CAISSON_VERSION="${PROJECT_VERSION}")
  if(CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_definitions(${target} PRIVATE _FORTIFY_SOURCE=2)
  endif()
  if(CAISSON_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${CAISSON_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${CAISSON_SANITIZE})
  endif()
  if(CAISSON_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(CAISSON_TIDY)
    set_property(TARGET ${target} PROPERTY CXX_CLANG_TIDY clang-tidy)
  endif()
endfunction()

# caisson_library(NAME SOURCES... [LINK libs...]): a static library of one room.
function(caisson_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  caisson_flags(${name})
  # libcaisson.so is made of these: nothing leaves it but what its headers mark.
  set_target_properties(${name} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  target_link_libraries(${name} PUBLIC ${ARG_LINK})
endfunction()

# caisson_program(NAME [LIBEXEC] SOURCES... [LINK libs...])
function(caisson_program name)
  cmake_parse_arguments(ARG "LIBEXEC" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  caisson_flags(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  target_link_options(${name} PRIVATE -Wl,-z,relro,-z,now -Wl,--as-needed)
  if(ARG_LIBEXEC)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CAISSON_LIBEXEC_DIRECTORY})
    set_property(GLOBAL APPEND PROPERTY CAISSON_LIBEXEC_PROGRAMS ${name})  # installed by cmake/install.cmake
  endif()
endfunction()

# caisson_test(NAME SOURCES... [LINK libs...] [LABELS ring...]): one GoogleTest program, one ctest entry
# (a ring's entries stay few and fast; --gtest_filter finds the single case).
function(caisson_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  if(NOT CAISSON_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  add_executable(${name} ${ARG_SOURCES})
  caisson_flags(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gmock GTest::gtest GTest::gtest_main Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()

# caisson_fuzz(NAME SOURCES... [LINK libs...]): a libFuzzer target in the fuzz preset. The same source is linked
# with fuzz/replay_main.cc elsewhere, so that the seed corpus runs in the normal suite.
function(caisson_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(CAISSON_FUZZ)
    add_executable(${name} ${ARG_SOURCES})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${ARG_SOURCES} ${CMAKE_SOURCE_DIR}/fuzz/replay_main.cc)
  endif()
  caisson_flags(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  file(MAKE_DIRECTORY ${CMAKE_SOURCE_DIR}/fuzz/corpus/${name})
  add_test(NAME ${name} COMMAND ${name} -runs=0 ${CMAKE_SOURCE_DIR}/fuzz/corpus/${name})
  set_tests_properties(${name} PROPERTIES LABELS "unit" TIMEOUT 120)
endfunction()
