enable_testing()
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)

# lingua_test(name SOURCES... LIBS libraries...): one cmocka program, one ctest entry.
function(lingua_test name)
  cmake_parse_arguments(T "" "" "LIBS" ${ARGN})
  add_executable(${name} ${T_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE lingua_flags ${T_LIBS} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name})
endfunction()

# Each area keeps its own list, so that it stays beside its tests.
file(GLOB lists CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*/*.cmake)
foreach(list ${lists})
  include(${list})
endforeach()
