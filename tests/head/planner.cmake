if(NOT LINGUA_JOIN_ONLY)
  lingua_test(test_planner ${CMAKE_CURRENT_LIST_DIR}/test_planner.c LIBS lingua_head)
endif()
