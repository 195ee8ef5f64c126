# Debian packages by CPack: caisson (what runs, with the library) and libcaisson-dev. `make package` puts them into
# build/package.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME caisson)
set(CPACK_PACKAGE_CONTACT "The caisson maintainers <maintainers@caisson.invalid>")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_SOURCE_DIR}/build/package)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS ${CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS})
set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CAISSON_PACKAGE_VERSION ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME caisson)
set(CPACK_DEBIAN_RUNTIME_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION "runs commands from OCI images in micro-VMs
Each box is a virtual machine with a kernel of its own, in a jail, and starts
by restoring a frozen machine instead of booting one.
.
This package has the command line, its helper programs, and the library that
programs embed. QEMU and the guest's kernel are not in it: caisson-setup takes
them from Debian's archive.")
# What the programs load is found by dpkg-shlibdeps; the rest is what caisson and caisson-setup start.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_DEPENDS
    "bubblewrap, ca-certificates, debian-archive-keyring, mmdebstrap, passwd, xz-utils, zstd")
# For users who may not ask root to run caisson-setup.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS "fakechroot, fakeroot, uidmap")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_STRICT_PERMISSION ON)
file(WRITE ${CMAKE_BINARY_DIR}/generated/shlibs
    "libcaisson ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} caisson (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/tools/package/postinst
    ${CMAKE_SOURCE_DIR}/tools/package/postrm ${CMAKE_SOURCE_DIR}/tools/package/triggers ${CMAKE_BINARY_DIR}/generated/shlibs)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libcaisson-dev)
set(CPACK_DEBIAN_DEVELOPMENT_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "headers of caisson, to run commands in micro-VMs
What C++ programs are built with that run commands from OCI images, each in a
micro-VM of its own: headers, pkg-config file and CMake package of libcaisson.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "caisson (= ${CAISSON_PACKAGE_VERSION}), libexpected-dev")

# Documents that Debian's policy asks for.
string(TIMESTAMP CAISSON_CHANGELOG_DATE "%a, %d %b %Y 00:00:00 +0000" UTC)
if(CAISSON_LAST_CHANGE AND NOT DEFINED ENV{SOURCE_DATE_EPOCH})
  set(ENV{SOURCE_DATE_EPOCH} ${CAISSON_LAST_CHANGE})
  string(TIMESTAMP CAISSON_CHANGELOG_DATE "%a, %d %b %Y 00:00:00 +0000" UTC)
  unset(ENV{SOURCE_DATE_EPOCH})
endif()
set(CAISSON_DOCUMENTS ${CMAKE_BINARY_DIR}/generated/documents)
file(WRITE ${CAISSON_DOCUMENTS}/changelog.Debian "caisson (${CAISSON_PACKAGE_VERSION}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- ${CPACK_PACKAGE_CONTACT}  ${CAISSON_CHANGELOG_DATE}\n")
configure_file(CHANGELOG.md ${CAISSON_DOCUMENTS}/changelog COPYONLY)
execute_process(COMMAND gzip -9nfk ${CAISSON_DOCUMENTS}/changelog ${CAISSON_DOCUMENTS}/changelog.Debian)
foreach(component runtime development)
  string(TOUPPER ${component} COMPONENT)
  install(FILES tools/package/copyright ${CAISSON_DOCUMENTS}/changelog.gz ${CAISSON_DOCUMENTS}/changelog.Debian.gz
    DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${CPACK_DEBIAN_${COMPONENT}_PACKAGE_NAME} COMPONENT ${component})
  install(FILES tools/package/lintian-${CPACK_DEBIAN_${COMPONENT}_PACKAGE_NAME}
    DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/lintian/overrides RENAME ${CPACK_DEBIAN_${COMPONENT}_PACKAGE_NAME}
    COMPONENT ${component})
endforeach()
include(CPack)
