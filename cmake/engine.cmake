# Builds the engine (cmake/engine) once per package version, compiler and CPU choice, into build/engine/<key>, and imports its archives.
# The folder lies outside any one build tree so that the release, sanitizer, gcc and clang builds share it.
include(ExternalProject)

set(LINGUA_PACKAGE ${CMAKE_SOURCE_DIR}/node_modules/llama.rn CACHE PATH "folder of the unpacked llama.rn package")
set(LINGUA_ENGINE_CACHE ${CMAKE_SOURCE_DIR}/build/engine CACHE PATH "where built engines are kept")
if(NOT EXISTS ${LINGUA_PACKAGE}/cpp/ggml.c)
  message(FATAL_ERROR "The llama.rn package is missing. Run `make deps` (or `npm ci`) in ${CMAKE_SOURCE_DIR} first.")
endif()

# The engine is always built with the system's default compilers, whichever lingua itself is built with: its bits must not depend on
# a check build's choice. A cross build has no choice: its toolchain's compilers, and never this machine's CPU.
file(READ ${CMAKE_SOURCE_DIR}/package-lock.json lock)
string(REGEX MATCH "\"node_modules/llama.rn\": {[^}]*}" lock "${lock}") # other packages are not its business
string(SHA256 hash_lock "${lock}")
file(SHA256 ${CMAKE_SOURCE_DIR}/cmake/engine/CMakeLists.txt hash_rules)
set(engine_cc cc)
set(engine_target -DCMAKE_C_COMPILER=cc -DCMAKE_CXX_COMPILER=c++)
set(engine_machine "uname -m")
if(CMAKE_CROSSCOMPILING)
  set(engine_cc ${CMAKE_C_COMPILER})
  set(engine_target -DCMAKE_TOOLCHAIN_FILE=${CMAKE_TOOLCHAIN_FILE})
  set(engine_machine "echo ${CMAKE_SYSTEM_PROCESSOR}")
  set(LINGUA_NATIVE OFF)
endif()
execute_process(COMMAND sh -c "${engine_cc} --version | head -n 1; ${engine_machine}" OUTPUT_VARIABLE cc_version)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS package-lock.json cmake/engine/CMakeLists.txt)
set(cpu portable)
if(LINGUA_NATIVE)
  # A cached engine must not meet another CPU than the one it was tuned for.
  execute_process(COMMAND sh -c "grep -m1 -iE '^(flags|features)' /proc/cpuinfo" OUTPUT_VARIABLE cpu)
endif()
string(SHA256 key "${hash_lock}${hash_rules}${cc_version}${cpu}")
string(SUBSTRING ${key} 0 12 key)
set(engine_dir ${LINGUA_ENGINE_CACHE}/${key})
# A device that only joins needs of it the tensors alone; a later full build in the same folder adds the rest.
if(LINGUA_JOIN_ONLY)
  set(engine_libs ${engine_dir}/build/libggml.a)
  set(engine_part --target ggml)
  set(engine_done ${engine_dir}/complete-ggml)
else()
  set(engine_libs ${engine_dir}/build/libggml.a ${engine_dir}/build/libllama.a ${engine_dir}/build/libllama-common.a)
  set(engine_part)
  set(engine_done ${engine_dir}/complete)
endif()
set(engine_missing FALSE)
foreach(file ${engine_libs})
  if(NOT EXISTS ${file})
    set(engine_missing TRUE)
  endif()
endforeach()
if(NOT EXISTS ${engine_done} AND NOT EXISTS ${engine_dir}/complete)
  set(engine_missing TRUE)
endif()

if(engine_missing)
  ExternalProject_Add(engine_build
    SOURCE_DIR ${CMAKE_SOURCE_DIR}/cmake/engine
    BINARY_DIR ${engine_dir}/build
    PREFIX ${engine_dir}
    CMAKE_ARGS -DCMAKE_BUILD_TYPE=None -DLINGUA_PACKAGE=${LINGUA_PACKAGE} -DLINGUA_NATIVE=${LINGUA_NATIVE}
               ${engine_target}
    BUILD_COMMAND ${CMAKE_COMMAND} --build ${engine_dir}/build ${engine_part}
    INSTALL_COMMAND ${CMAKE_COMMAND} -E touch ${engine_done}
    BUILD_BYPRODUCTS ${engine_libs}
    USES_TERMINAL_BUILD ON)
else()
  # Should the engine be removed, look again instead of failing for want of an archive.
  if(NOT EXISTS ${engine_done})
    set(engine_done ${engine_dir}/complete)
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${engine_done})
endif()

file(MAKE_DIRECTORY ${engine_dir}/build/src ${engine_dir}/build/src/ggml-cpu ${engine_dir}/build/src/common)
function(engine_import name archive)
  add_library(${name} STATIC IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${engine_dir}/build/${archive})
  target_include_directories(${name} SYSTEM INTERFACE ${engine_dir}/build/src ${engine_dir}/build/src/common
    ${engine_dir}/build/src/ggml-cpu)
  target_compile_definitions(${name} INTERFACE GGML_USE_CPU GGML_USE_CPU_REPACK)
  target_link_libraries(${name} INTERFACE ${ARGN})
  if(TARGET engine_build)
    add_dependencies(${name} engine_build)
  endif()
endfunction()
engine_import(engine_ggml libggml.a stdc++ m dl Threads::Threads)
if(NOT LINGUA_JOIN_ONLY)
  engine_import(engine_llama libllama.a engine_ggml)
  engine_import(engine_common libllama-common.a engine_llama)
endif()

# What the engine was compiled to use, as the compiler's own macros tell, so that a CPU that lacks it is refused with a sentence
# (src/model/cpu.c) and the attention kernel is compiled alike.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
  set(engine_cpu_flags -march=x86-64-v2)
  set(engine_features SSE4_2=sse4.2 AVX=avx AVX2=avx2 FMA=fma BMI=bmi BMI2=bmi2 AVX512F=avx512f AVX512BW=avx512bw
    AVX512DQ=avx512dq AVX512VL=avx512vl AVX512CD=avx512cd AVX512VBMI=avx512vbmi AVX512VNNI=avx512vnni
    AVX512BF16=avx512bf16 AVX512VBMI2=avx512vbmi2 AVX512IFMA=avx512ifma AVX512BITALG=avx512bitalg
    AVX512VPOPCNTDQ=avx512vpopcntdq F16C=f16c AVXVNNI=avxvnni AVX512FP16=avx512fp16 GFNI=gfni
    VAES=vaes VPCLMULQDQ=vpclmulqdq)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(engine_cpu_flags -march=armv8-a)
  set(engine_features ARM_FEATURE_DOTPROD=dotprod ARM_FEATURE_FP16_VECTOR_ARITHMETIC=fp16 ARM_FEATURE_SVE=sve
    ARM_FEATURE_MATMUL_INT8=i8mm ARM_FEATURE_BF16=bf16)
endif()
if(LINGUA_NATIVE)
  set(engine_cpu_flags -march=native)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
    list(APPEND engine_cpu_flags -mno-amx-tile -mno-amx-int8 -mno-amx-bf16) # as engine/CMakeLists.txt says
  endif()
endif()
execute_process(COMMAND ${engine_cc} ${engine_cpu_flags} -dM -E -x c /dev/null OUTPUT_VARIABLE macros)
set(engine_uses "")
foreach(pair ${engine_features})
  string(REPLACE "=" ";" pair ${pair})
  list(GET pair 0 macro)
  list(GET pair 1 name)
  if(macros MATCHES "#define __${macro}(__)? ")
    string(APPEND engine_uses "USES(\"${name}\"),")
  endif()
endforeach()
