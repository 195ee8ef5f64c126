# What an installation consists of, and where it lies below the prefix. Nothing holds the prefix: programs and library
# find the rest from where they are, so that a tree can be installed under DESTDIR, packaged, or moved as a whole.
include(CMakePackageConfigHelpers)
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CAISSON_CMAKE_DIRECTORY ${CMAKE_INSTALL_LIBDIR}/cmake/caisson)

# ---- runtime: the command line, its helper programs, the library
add_dependencies(programs caisson_shared)
install(TARGETS caisson RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(TARGETS caisson-shim caisson-unpack caisson-fetch caisson-agent RUNTIME DESTINATION libexec/caisson COMPONENT runtime)
install(TARGETS caisson_shared EXPORT caisson
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)

# ---- development: what programs of others are built with
install(DIRECTORY include/caisson DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development FILES_MATCHING PATTERN "*.h")
install(EXPORT caisson NAMESPACE caisson:: DESTINATION ${CAISSON_CMAKE_DIRECTORY} FILE caisson-targets.cmake
  COMPONENT development)
configure_package_config_file(cmake/caisson-config.cmake.in ${CMAKE_BINARY_DIR}/generated/caisson-config.cmake
  INSTALL_DESTINATION ${CAISSON_CMAKE_DIRECTORY})
# Before 1.0.0 another minor version is another API.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/caisson-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/caisson-config.cmake ${CMAKE_BINARY_DIR}/generated/caisson-config-version.cmake
  DESTINATION ${CAISSON_CMAKE_DIRECTORY} COMPONENT development)
file(RELATIVE_PATH CAISSON_PREFIX_FROM_PKGCONFIG /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" CAISSON_PREFIX_FROM_PKGCONFIG "${CAISSON_PREFIX_FROM_PKGCONFIG}")
configure_file(cmake/caisson.pc.in ${CMAKE_BINARY_DIR}/generated/caisson.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/generated/caisson.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
