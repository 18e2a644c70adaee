# A cluster in one process, for tests that look at answers; live ones with real processes are in tests/live.
add_library(test_town STATIC ${CMAKE_SOURCE_DIR}/tests/support/town.c)
target_link_libraries(test_town PUBLIC test_support lingua_head)

lingua_test(test_cluster ${CMAKE_SOURCE_DIR}/tests/golden/test_cluster.c LIBS test_town)
set_tests_properties(test_cluster PROPERTIES TIMEOUT 600)
if(LINGUA_SANITIZE)
  set_property(TEST test_cluster APPEND PROPERTY ENVIRONMENT LINGUA_GOLDEN=small)
endif()
