# The page, its session, and what it may do, over a fake cluster.
set(api_rig api/api_rig.c api/fake_gen.c api/client.c support/tiny_vocab.c)
list(TRANSFORM api_rig PREPEND ${CMAKE_SOURCE_DIR}/tests/)
lingua_test(test_page ${CMAKE_CURRENT_LIST_DIR}/test_page.c ${api_rig} LIBS lingua_api)
target_include_directories(test_page PRIVATE ${CMAKE_SOURCE_DIR}/tests)
