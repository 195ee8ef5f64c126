# What an installation consists of, and where it lies below the prefix. Nothing holds the prefix: programs and library
# find the rest from where they are, so that a tree can be installed under DESTDIR, packaged, or moved as a whole.
include(CMakePackageConfigHelpers)
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CAISSON_CMAKE_DIRECTORY ${CMAKE_INSTALL_LIBDIR}/cmake/caisson)

# ---- runtime: the command line, its helper programs, the library
add_dependencies(programs caisson_shared)
install(TARGETS caisson RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
get_property(CAISSON_LIBEXEC_PROGRAMS GLOBAL PROPERTY CAISSON_LIBEXEC_PROGRAMS)
install(TARGETS ${CAISSON_LIBEXEC_PROGRAMS} caisson-agent RUNTIME DESTINATION libexec/caisson COMPONENT runtime)
install(TARGETS caisson_shared EXPORT caisson
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)

# ---- runtime: set-up of an installed caisson
install(PROGRAMS tools/setup/caisson-setup DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(PROGRAMS tools/setup/assets tools/setup/prepare DESTINATION libexec/caisson/setup COMPONENT runtime)
install(FILES tools/setup/lib.sh tools/setup/private-apt.sh DESTINATION libexec/caisson/setup COMPONENT runtime)
install(FILES tools/setup/parts/base.sh tools/setup/parts/kernel.sh tools/setup/parts/vmm.sh
  DESTINATION libexec/caisson/setup/parts COMPONENT runtime)

# ---- runtime: manual pages and completions. The same sources give the same bytes: the date is that of the last change
# (or of SOURCE_DATE_EPOCH, see reproducible-builds.org/specs/source-date-epoch).
if(NOT DEFINED ENV{SOURCE_DATE_EPOCH})
  execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} log -1 --format=%ct OUTPUT_VARIABLE CAISSON_LAST_CHANGE
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(CAISSON_LAST_CHANGE)
    set(ENV{SOURCE_DATE_EPOCH} ${CAISSON_LAST_CHANGE})
    string(TIMESTAMP CAISSON_DATE %Y-%m-%d UTC)
    unset(ENV{SOURCE_DATE_EPOCH})
  endif()
endif()
if(NOT CAISSON_DATE)
  string(TIMESTAMP CAISSON_DATE %Y-%m-%d UTC)
endif()
set(CAISSON_PAGES ${CMAKE_BINARY_DIR}/generated/pages)
configure_file(docs/man/caisson-setup.1.in ${CMAKE_BINARY_DIR}/generated/caisson-setup.1 @ONLY)
add_custom_command(OUTPUT ${CAISSON_PAGES}.made
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${CAISSON_PAGES}
  COMMAND caisson-generate ${CAISSON_PAGES} ${PROJECT_VERSION} ${CAISSON_DATE}
  COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_BINARY_DIR}/generated/caisson-setup.1 ${CAISSON_PAGES}/man
  COMMAND gzip -9nr ${CAISSON_PAGES}/man
  COMMAND ${CMAKE_COMMAND} -E touch ${CAISSON_PAGES}.made
  DEPENDS caisson-generate ${CMAKE_BINARY_DIR}/generated/caisson-setup.1 VERBATIM
  COMMENT "Writing manual pages and completions")
add_custom_target(pages ALL DEPENDS ${CAISSON_PAGES}.made)
add_dependencies(programs pages)
# Whoever starts boxes by their policies when no supervisor is left to do it.
# Data until somebody copies it to /etc/apparmor.d: AppArmor before 4.0 (Debian 12) would refuse to read it there.
install(FILES tools/package/apparmor/caisson DESTINATION share/caisson/apparmor COMPONENT runtime)
install(FILES tools/systemd/caisson-boxes.service DESTINATION lib/systemd/system COMPONENT runtime)
install(FILES tools/systemd/user-caisson-boxes.service DESTINATION lib/systemd/user RENAME caisson-boxes.service COMPONENT runtime)
install(DIRECTORY ${CAISSON_PAGES}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT runtime)
install(FILES ${CAISSON_PAGES}/bash/caisson DESTINATION share/bash-completion/completions COMPONENT runtime)
install(FILES ${CAISSON_PAGES}/fish/caisson.fish DESTINATION share/fish/vendor_completions.d COMPONENT runtime)
# Debian's zsh looks at another directory below /usr than below /usr/local.
install(CODE "set(CAISSON_ZSH_DIRECTORY share/zsh/site-functions)
if(CMAKE_INSTALL_PREFIX MATCHES \"(^|/)usr$\")
  set(CAISSON_ZSH_DIRECTORY share/zsh/vendor-completions)
endif()" COMPONENT runtime)
install(FILES ${CAISSON_PAGES}/zsh/_caisson DESTINATION "\${CAISSON_ZSH_DIRECTORY}" COMPONENT runtime)

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
