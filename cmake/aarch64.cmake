# Toolchain: 64-bit ARM Linux from any Debian, with its cross compilers. The libraries come unpacked into a folder of
# their own (tools/install-deps arm64): their -dev packages do not all install beside those of the host.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

get_filename_component(LINGUA_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build/arm64-sysroot ABSOLUTE)
if(DEFINED ENV{LINGUA_SYSROOT})
  set(LINGUA_SYSROOT $ENV{LINGUA_SYSROOT})
endif()
set(CMAKE_FIND_ROOT_PATH ${LINGUA_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
foreach(lang C CXX)
  set(CMAKE_${lang}_FLAGS_INIT
    "-isystem ${LINGUA_SYSROOT}/usr/include -isystem ${LINGUA_SYSROOT}/usr/include/aarch64-linux-gnu")
endforeach()
set(ENV{PKG_CONFIG_DIR})
set(ENV{PKG_CONFIG_LIBDIR} ${LINGUA_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${LINGUA_SYSROOT})

# What is built runs here in qemu's user mode, with the cross compiler's C library: all of it, for the loader of one
# version hangs with the library of another, where the system has one for arm64 as well.
find_program(LINGUA_QEMU qemu-aarch64)
if(LINGUA_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${LINGUA_QEMU} -L /usr/aarch64-linux-gnu
    -E LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib:${LINGUA_SYSROOT}/usr/lib/aarch64-linux-gnu)
endif()
