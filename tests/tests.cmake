enable_testing()
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)

# lingua_test(name SOURCES... LIBS libraries...): one cmocka program, one ctest entry.
function(lingua_test name)
  cmake_parse_arguments(T "" "" "LIBS" ${ARGN})
  add_executable(${name} ${T_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE lingua_flags ${T_LIBS} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name})
endfunction()

# A test that reads the default model finds it by itself or by this folder's name: it is fetched before (tests/unit/llama2c.cmake).
set(LINGUA_TEST_MODELS ${CMAKE_SOURCE_DIR}/build/models)
function(lingua_test_needs_model name)
  set_property(TEST ${name} APPEND PROPERTY FIXTURES_REQUIRED default_model)
  set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT LINGUA_MODELS=${LINGUA_TEST_MODELS})
endfunction()

# Each area keeps its own list, so that it stays beside its tests.
file(GLOB lists CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*/*.cmake)
if(LINGUA_JOIN_ONLY) # those that need neither text nor head, nor a reference to compare with
  list(FILTER lists INCLUDE REGEX "/(attn|matmul_q4|matmul_q8|modelfile|wire|cluster_wire|mdns|golden|worker)\\.cmake$")
endif()
foreach(list ${lists})
  include(${list})
endforeach()
