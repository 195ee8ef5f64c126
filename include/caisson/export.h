// Marks what libcaisson exports. Everything else in the library is hidden, see docs/adr/0009-one-shared-library.md.
#pragma once

#define CAISSON_API __attribute__((visibility("default")))
