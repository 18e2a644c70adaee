# A cluster in one process, for tests that look at answers; live ones with real processes are in tests/live.
add_library(test_town_rig STATIC ${CMAKE_SOURCE_DIR}/tests/support/town.c)
target_link_libraries(test_town_rig PUBLIC test_support lingua_head)

lingua_test(test_cluster ${CMAKE_SOURCE_DIR}/tests/golden/test_cluster.c LIBS test_town_rig)
set_tests_properties(test_cluster PROPERTIES TIMEOUT 600)
lingua_test(test_town ${CMAKE_SOURCE_DIR}/tests/golden/test_town.c LIBS test_town_rig)
set_tests_properties(test_town PROPERTIES TIMEOUT 300)
if(LINGUA_SANITIZE)
  set_property(TEST test_cluster APPEND PROPERTY ENVIRONMENT LINGUA_GOLDEN=small)
endif()
lingua_test(test_gen ${CMAKE_SOURCE_DIR}/tests/head/test_gen.c LIBS test_town_rig)
set_tests_properties(test_gen PROPERTIES TIMEOUT 300)
