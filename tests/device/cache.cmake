# The weight cache: manifests, mirrors, and weights on their way.
add_library(cache_rig STATIC ${CMAKE_CURRENT_LIST_DIR}/cache_rig.c)
target_link_libraries(cache_rig PUBLIC lingua_device PkgConfig::CMOCKA)

# tests/golden, which comes after this in the alphabet, has the tiny models' library.
set(tiny ${CMAKE_SOURCE_DIR}/tests/support/tiny_model.c)
foreach(name manifest mirror mirror_exact profile condition bulk)
  lingua_test(test_${name} ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c ${tiny} LIBS cache_rig)
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
endforeach()
