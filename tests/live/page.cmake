# The page in a real browser, of real heads with real devices (tests/live/page). Without Chromium they are skipped.
if(NOT LINGUA_SANITIZE)
  foreach(area chat story cluster access)
    if(LINGUA_NODE)
      add_test(NAME live_page_${area} COMMAND ${LINGUA_NODE} ${CMAKE_SOURCE_DIR}/tests/live/page/${area}.mjs)
    else()
      add_test(NAME live_page_${area} COMMAND sh -c "echo SKIPPED: there is no node; exit 77")
    endif()
    set_tests_properties(live_page_${area} PROPERTIES SKIP_RETURN_CODE 77 PROCESSORS 2 TIMEOUT 400
      ENVIRONMENT "LINGUA_PROGRAM=$<TARGET_FILE:lingua>;LINGUA_TEST_DIR=${CMAKE_BINARY_DIR}/live-page")
    lingua_test_needs_model(live_page_${area})
  endforeach()
endif()
