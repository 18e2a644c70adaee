# fuzz.cmake, which comes before this in the alphabet, has lingua_fuzz.
if(COMMAND lingua_fuzz)
  lingua_fuzz(fuzz_wire ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_wire.c LIBS lingua_wire)
  lingua_fuzz(fuzz_cluster ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_cluster.c
    ${CMAKE_SOURCE_DIR}/tests/support/cluster_kinds.c LIBS lingua_wire)
  add_executable(fuzz_cluster_seeds EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_cluster_seeds.c
    ${CMAKE_SOURCE_DIR}/tests/support/cluster_kinds.c)
  target_link_libraries(fuzz_cluster_seeds PRIVATE lingua_wire)
  target_include_directories(fuzz_cluster_seeds PRIVATE ${CMAKE_SOURCE_DIR}/tests)
endif()
