# A device that only joins has no libllama to be compared with: it is held against itself.
if(LINGUA_JOIN_ONLY)
  add_library(test_support STATIC ${CMAKE_SOURCE_DIR}/tests/support/tiny_model.c)
  target_include_directories(test_support PUBLIC ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(test_support PUBLIC lingua_flags lingua_base engine_ggml)
  add_library(test_rig STATIC ${CMAKE_SOURCE_DIR}/tests/support/rig.c)
  target_link_libraries(test_rig PUBLIC test_support lingua_model)
  lingua_test(test_exact ${CMAKE_SOURCE_DIR}/tests/golden/test_exact.c ${CMAKE_SOURCE_DIR}/tests/golden/exact.c
    LIBS test_rig)
  lingua_test(test_badmodel ${CMAKE_SOURCE_DIR}/tests/golden/test_badmodel.c LIBS test_rig)
  set_tests_properties(test_exact test_badmodel PROPERTIES ENVIRONMENT LINGUA_GOLDEN=tiny TIMEOUT 3000)
  return()
endif()

add_library(test_support STATIC ${CMAKE_SOURCE_DIR}/tests/support/tiny_model.c
  ${CMAKE_SOURCE_DIR}/tests/support/ref_llama.c)
target_include_directories(test_support PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(test_support PUBLIC lingua_flags lingua_base engine_llama)

add_executable(ref_greedy ${CMAKE_SOURCE_DIR}/tests/golden/ref_greedy.c)
target_link_libraries(ref_greedy PRIVATE test_support)

# The model under test, and what compares it. In sanitizer builds fewer types and shorter prompts do.
add_library(test_rig STATIC ${CMAKE_SOURCE_DIR}/tests/support/rig.c)
target_link_libraries(test_rig PUBLIC test_support lingua_model)

lingua_test(test_families ${CMAKE_SOURCE_DIR}/tests/golden/test_families.c LIBS test_rig)
lingua_test(test_exact ${CMAKE_SOURCE_DIR}/tests/golden/test_exact.c ${CMAKE_SOURCE_DIR}/tests/golden/exact.c
  LIBS test_rig)
lingua_test(test_slots ${CMAKE_SOURCE_DIR}/tests/golden/test_slots.c ${CMAKE_SOURCE_DIR}/tests/golden/exact.c
  LIBS test_rig)
lingua_test(test_badmodel ${CMAKE_SOURCE_DIR}/tests/golden/test_badmodel.c LIBS test_rig)
if(LINGUA_SANITIZE)
  set_tests_properties(test_families test_exact test_slots test_badmodel PROPERTIES ENVIRONMENT LINGUA_GOLDEN=small)
endif()

lingua_test(test_story ${CMAKE_SOURCE_DIR}/tests/golden/test_story.c LIBS test_rig)
lingua_test_needs_model(test_story)
add_test(NAME test_story_text COMMAND ${CMAKE_SOURCE_DIR}/tests/golden/story.sh $<TARGET_FILE:lingua>
  $<TARGET_FILE:ref_greedy> ${CMAKE_BINARY_DIR}/golden-story)
lingua_test_needs_model(test_story_text)
